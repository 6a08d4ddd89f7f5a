"""What the API returns, and so what the streams carry."""

from rest_framework import serializers

from auction.models import Bid, Lot


class BidSerializer(serializers.ModelSerializer):
    class Meta:
        model = Bid
        fields = ("bidder", "amount", "placed_at")


class LotSerializer(serializers.ModelSerializer):
    url = serializers.CharField(source="get_absolute_url", read_only=True)
    next_bid = serializers.DecimalField(max_digits=10, decimal_places=2, read_only=True)
    recent_bids = BidSerializer(many=True, read_only=True)

    class Meta:
        model = Lot
        fields = (
            "id",
            "url",
            "title",
            "description",
            "category",
            "starting_price",
            "current_price",
            "next_bid",
            "bid_count",
            "closes_at",
            "status",
            "recent_bids",
        )


class StaffLotSerializer(LotSerializer):
    class Meta(LotSerializer.Meta):
        fields = (*LotSerializer.Meta.fields, "reserve_price")


class OwnBidSerializer(serializers.ModelSerializer):
    title = serializers.CharField(source="lot.title", read_only=True)
    url = serializers.CharField(source="lot.get_absolute_url", read_only=True)

    class Meta:
        model = Bid
        fields = ("id", "lot", "title", "url", "amount", "placed_at")
