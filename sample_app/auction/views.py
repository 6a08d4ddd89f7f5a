"""The pages, and the API that keeps them current."""

from django.contrib.auth.decorators import login_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from rest_framework import mixins, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from auction.bidding import BidRefused, place_bid
from auction.models import Bid, Lot
from auction.serializers import (
    BidSerializer,
    LotSerializer,
    OwnBidSerializer,
    StaffLotSerializer,
)
from django_grip.contrib.rest_framework import StreamModelMixin


class LotViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """Lots to read, to stream (`stream/`) and to bid on (`{id}/bid/`)."""

    queryset = Lot.objects.order_by("id")

    def get_serializer_class(self) -> type[LotSerializer]:
        """The staff sees more; its streams carry it, those of others do not."""
        return StaffLotSerializer if self.request.user.is_staff else LotSerializer

    @action(detail=True, methods=["post"])
    def bid(self, request: Request, **kwargs: str) -> Response:
        """Place a bid: `{"bidder": "paddle-7", "amount": "120.00"}`."""
        lot = self.get_object()
        bid = BidSerializer(data=request.data)
        bid.is_valid(raise_exception=True)
        user = request.user if request.user.is_authenticated else None
        try:
            lot = place_bid(lot.pk, **bid.validated_data, user=user)
        except BidRefused as exc:
            raise ValidationError({"detail": str(exc)}) from exc
        return Response(self.get_serializer(lot).data, status=status.HTTP_201_CREATED)


class CategoryLotViewSet(LotViewSet):
    """The lots of one category: a lot that moves to another leaves its streams."""

    stream_scope = "category"

    def get_queryset(self) -> QuerySet[Lot]:
        return super().get_queryset().filter(category=self.kwargs["category"])

    def get_stream_scope(self) -> str:
        return self.kwargs["category"]


class OwnBidViewSet(
    StreamModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet[Bid]
):
    """The bids of whoever asks. Logging out ends its streams at once."""

    serializer_class = OwnBidSerializer
    permission_classes = (IsAuthenticated,)
    stream_scope = "owner"
    stream_link = "private"

    def get_queryset(self) -> QuerySet[Bid]:
        own = Bid.objects.filter(user=self.request.user.pk)
        return own.select_related("lot").order_by("-id")

    def get_stream_scope(self) -> int:
        return self.request.user.pk


def lot_list(request: HttpRequest) -> HttpResponse:
    lots = Lot.objects.all()
    categories = lots.order_by("category").values_list("category", flat=True).distinct()
    category = request.GET.get("category")
    if category is not None:
        lots = lots.filter(category=category)
    context = {"lots": lots, "categories": categories, "category": category}
    return render(request, "auction/lot_list.html", context)


def lot_page(request: HttpRequest, pk: int) -> HttpResponse:
    lot = get_object_or_404(Lot, pk=pk)
    return render(request, "auction/lot.html", {"lot": lot})


@login_required
def own_bids(request: HttpRequest) -> HttpResponse:
    return render(request, "auction/own_bids.html")
