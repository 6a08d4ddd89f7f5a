"""Pages of the list of streams.py's site, for who asks for them."""

from rest_framework.pagination import PageNumberPagination


class Pages(PageNumberPagination):
    """Of `?page_size=` rows; without that the list is whole."""

    page_size = None
    page_size_query_param = "page_size"
