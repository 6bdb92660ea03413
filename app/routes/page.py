"""GET /: the page, as files of this package, under a policy that lets nothing else in."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter()
_WEB = Path(__file__).parent.parent / "web"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(_WEB / "index.html", headers=_HEADERS)


@router.get("/page.js", include_in_schema=False)
async def script() -> FileResponse:
    return FileResponse(_WEB / "page.js", headers=_HEADERS, media_type="text/javascript")


@router.get("/page.css", include_in_schema=False)
async def style() -> FileResponse:
    return FileResponse(_WEB / "page.css", headers=_HEADERS, media_type="text/css")
