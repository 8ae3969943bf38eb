"""A training as one HTML file."""

from .page import REPORT_FILE, report_page, write_report

__all__ = ['REPORT_FILE', 'report_page', 'write_report']
