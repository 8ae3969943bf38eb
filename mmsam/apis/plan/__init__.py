"""Predicts what a training takes: parameters, FLOPs, memory and disk."""

from .plan import CARDS, plan_training
from .report import plan_report

__all__ = ['CARDS', 'plan_report', 'plan_training']
