"""What every template of the showcase may use."""

from stage.breaking import breakable
from stage.pages import PAGES


def stage(request):
    """Context processor: the pages, whether this one is shown in a frame, the prefix of addresses, what can be broken."""
    return {
        "pages": PAGES.values(),
        "framed": request.headers.get("Sec-Fetch-Dest") == "iframe",
        "prefix": request.META.get("SCRIPT_NAME", ""),
        "breakable": breakable(),
    }
