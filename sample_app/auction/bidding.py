"""The rule of the auction: who may bid how much."""

from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction

from auction.models import Bid, Lot


class BidRefused(Exception):
    """The bid breaks the rule; the message tells the bidder why."""


def place_bid(
    lot_id: int, bidder: str, amount: Decimal, user: User | None = None
) -> Lot:
    """Record a bid that leads, and return the lot as it stands then.

    Of two bids at the same instant the second one waits, and is judged by the price
    that the first one made.

    Raises BidRefused if the lot is closed or the amount does not lead.
    """
    with transaction.atomic():
        lot = Lot.objects.select_for_update().get(pk=lot_id)
        if not lot.is_open:
            raise BidRefused(f"Bidding on {lot.title} is closed.")
        if amount < lot.lowest_bid:
            raise BidRefused(f"Bid at least {lot.lowest_bid}; you offered {amount}.")
        # The bid goes first: what the lot's save announces then holds it already.
        Bid.objects.create(lot=lot, bidder=bidder, amount=amount, user=user)
        lot.current_price = amount
        lot.bid_count += 1
        lot.save(update_fields=["current_price", "bid_count"])
    return lot
