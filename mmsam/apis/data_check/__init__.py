"""What is wrong or suspicious in the data of a config: looked at as a whole, or quickly."""

from .data_pictures import draw_data
from .full_check import check_data
from .quick_check import check_data_quickly
from .report import data_report, raise_errors

__all__ = ['check_data', 'check_data_quickly', 'data_report', 'draw_data', 'raise_errors']
