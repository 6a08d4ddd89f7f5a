"""Two pages, and the API that keeps them current."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from auction.bidding import BidRefused, place_bid
from auction.models import Lot
from auction.serializers import BidSerializer, LotSerializer
from django_grip.contrib.rest_framework import StreamModelMixin


class LotViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """Lots to read, to stream (`stream/`) and to bid on (`{id}/bid/`)."""

    queryset = Lot.objects.order_by("id")
    serializer_class = LotSerializer

    @action(detail=True, methods=["post"])
    def bid(self, request: Request, pk: str) -> Response:
        """Place a bid: `{"bidder": "paddle-7", "amount": "120.00"}`."""
        lot = self.get_object()
        bid = BidSerializer(data=request.data)
        bid.is_valid(raise_exception=True)
        try:
            lot = place_bid(lot.pk, **bid.validated_data)
        except BidRefused as exc:
            raise ValidationError({"detail": str(exc)}) from exc
        return Response(self.get_serializer(lot).data, status=status.HTTP_201_CREATED)


def lot_list(request: HttpRequest) -> HttpResponse:
    return render(request, "auction/lot_list.html", {"lots": Lot.objects.all()})


def lot_page(request: HttpRequest, pk: int) -> HttpResponse:
    lot = get_object_or_404(Lot, pk=pk)
    return render(request, "auction/lot.html", {"lot": lot})
