"""GET /auth_configs: what the project can connect, and how."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from sandbox.stackone.parts import Page, PageSize, TheProject, require_api_key

router = APIRouter(dependencies=[Depends(require_api_key)])


@router.get("/auth_configs")
async def list_auth_configs(
    project: TheProject,
    page: Page = 1,
    page_size: PageSize = 25,
    enabled: bool | None = None,  # noqa: FBT001 - a query parameter
    connector_key: str | None = None,
) -> JSONResponse:
    """List auth configs with the count of all that match."""
    rows = [
        config.for_the_backend()
        for config in project.auth_configs.values()
        if enabled in (None, config.active) and connector_key in (None, config.provider)
    ]
    start = max(0, page - 1) * page_size
    return JSONResponse(
        {"page": page, "page_size": page_size, "total": len(rows), "data": rows[start : start + page_size]}
    )
