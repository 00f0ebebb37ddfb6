"""The HTML report of a run and its plots: text in, text out, no plotting library."""

from oneshot.report.html import render as render
