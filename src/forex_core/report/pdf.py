"""The report on paper: the page's own print style as PDF, by WeasyPrint, which is an extra."""

from __future__ import annotations

import logging
from typing import Any

from forex_core.errors import ConfigError

SYSTEM_PACKAGES = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core"
"""What WeasyPrint needs of a Debian beside Python."""


def render_pdf(page: str) -> bytes:
    """A page of `render_report` as PDF: A4, tagged for screen readers, with nothing fetched.

    Raises:
        ConfigError: as `require_pdf`.
    """
    weasyprint = _weasyprint()
    nothing = weasyprint.urls.URLFetcher(allowed_protocols=())
    printed: bytes = weasyprint.HTML(string=page, url_fetcher=nothing).write_pdf(pdf_tags=True)
    return printed


def require_pdf() -> None:
    """Make sure that a PDF can be made.

    Raises:
        ConfigError: the extra or its system packages are not installed.
    """
    _weasyprint()


def _weasyprint() -> Any:
    try:
        import weasyprint
    except ImportError as error:
        raise ConfigError(
            "a PDF was asked for, and WeasyPrint is not installed; install it with 'pip install "
            f'"forex-forecast[pdf]"\' and the system packages {SYSTEM_PACKAGES}, or leave --pdf out'
        ) from error
    except OSError as error:  # its libraries are loaded when it is imported
        raise ConfigError(
            f"a PDF was asked for, and WeasyPrint cannot load its libraries ({' '.join(str(error).split())[:200]}); "
            f"install the system packages {SYSTEM_PACKAGES}, or leave --pdf out"
        ) from error
    # It warns of what is for screens in the page's style.
    logging.getLogger("weasyprint").setLevel(logging.ERROR)
    return weasyprint
