"""The auctioneer's desk: saving a lot here moves it on every open page."""

from django.contrib import admin

from auction.models import Bid, Lot


@admin.register(Lot)
class LotAdmin(admin.ModelAdmin):
    list_display = ("title", "category", "current_price", "bid_count", "status")
    list_filter = ("category", "status")
    search_fields = ("title", "description")
    # The pages tell an older lot from a newer one by it.
    readonly_fields = ("bid_count",)


@admin.register(Bid)
class BidAdmin(admin.ModelAdmin):
    list_display = ("lot", "bidder", "amount", "placed_at")
    list_filter = ("lot",)
