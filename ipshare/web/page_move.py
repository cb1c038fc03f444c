"""page: stub while the API is tested."""

from fastapi import APIRouter


def router(hub):
    return APIRouter()


def mount_static(app):
    pass


def wants_html(request):
    return False


def problem(request, failure):
    return failure.response()
