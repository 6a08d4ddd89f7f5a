"""The auction's rule, on the database itself."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.utils import timezone

from auction.bidding import BidRefused, place_bid
from auction.models import Lot

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lot(published):
    return Lot.objects.create(
        title="Clock",
        category="Clocks",
        starting_price="100.00",
        closes_at=timezone.now() + timedelta(days=1),
    )


def test_the_second_of_two_equal_bids_waits_and_is_judged_by_the_first(lot):
    bidding = threading.Event()
    outcome = []

    def bid_too():
        bidding.set()
        try:
            place_bid(lot.pk, "paddle-2", Decimal(120))
            outcome.append("placed")
        except BidRefused as exc:
            outcome.append(str(exc))
        finally:
            connection.close()

    rival = threading.Thread(target=bid_too)
    with transaction.atomic():
        place_bid(lot.pk, "paddle-1", Decimal(120))
        rival.start()
        assert bidding.wait(5)
        # While this transaction is open the rival may read, but not decide.
        rival.join(0.5)
        assert outcome == []
    rival.join(10)
    assert outcome == ["Bid at least 120.01; you offered 120."]
    lot.refresh_from_db()
    assert (lot.bid_count, lot.bids.get().bidder) == (1, "paddle-1")


def test_the_first_bid_may_be_the_starting_price_and_the_next_must_lead(lot):
    with pytest.raises(BidRefused, match=r"Bid at least 100\.00"):
        place_bid(lot.pk, "a", Decimal("99.99"))
    assert place_bid(lot.pk, "a", Decimal(100)).current_price == 100
    with pytest.raises(BidRefused, match=r"Bid at least 100\.01"):
        place_bid(lot.pk, "b", Decimal(100))
    assert place_bid(lot.pk, "b", Decimal("100.01")).bid_count == 2


def test_a_lot_whose_time_is_over_takes_no_bids(lot):
    lot.closes_at = timezone.now()
    lot.save()
    with pytest.raises(BidRefused, match="closed"):
        place_bid(lot.pk, "a", Decimal(120))


def test_a_bid_is_one_event_that_holds_it(lot, published):
    published.clear()
    place_bid(lot.pk, "paddle-1", Decimal(120))
    assert [item.channel for item in published] == [
        "auction.bid",
        f"auction.bid.{lot.bids.get().pk}",
        *(
            f"auction.lot{which}~as.{audience}"
            for audience in ("public", "staff")
            for which in ("", f".{lot.pk}", f"~category.{lot.category}")
        ),
    ]
    content = published[2].formats["http-stream"]["content"]
    assert '"recent_bids":[{"bidder":"paddle-1","amount":"120.00"' in content
