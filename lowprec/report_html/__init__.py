"""The report as one HTML page: `render(report.to_dict(times=True))`.

The page is made of the report's plain data alone, so a JSON file gives the same page. It loads
nothing: style and script are inside, and its content security policy forbids everything else.
Every text is escaped: names come from model files.
"""

from lowprec.report_html.page import render

__all__ = ["render"]
