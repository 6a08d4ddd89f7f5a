"""Lots, and the bids on them."""

from decimal import Decimal

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from django_grip.contrib.realtime import RealtimeManager, realtime

CENT = Decimal("0.01")


@realtime(
    audiences={
        "public": "auction.serializers.LotSerializer",
        "staff": "auction.serializers.StaffLotSerializer",
    },
    scopes={"category": "category"},
)
class Lot(models.Model):
    """One thing under the hammer. Every change of a row reaches the open pages.

    Those of the staff show the reserve price, which never leaves the site for others.
    """

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    title = models.CharField(max_length=80)
    description = models.TextField(blank=True)
    category = models.CharField(max_length=40)
    starting_price = models.DecimalField(
        max_digits=10, decimal_places=2, validators=[MinValueValidator(CENT)]
    )
    current_price = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        blank=True,
        help_text="Left empty, a new lot begins at its starting price.",
    )
    reserve_price = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        blank=True,
        null=True,
        help_text="Below it the lot is not sold. Only the staff knows.",
    )
    bid_count = models.PositiveIntegerField(default=0)
    closes_at = models.DateTimeField()
    status = models.CharField(
        max_length=10, choices=Status.choices, default=Status.OPEN
    )

    objects = RealtimeManager()

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.title

    def save(self, **kwargs) -> None:
        if self.current_price is None:
            self.current_price = self.starting_price
        super().save(**kwargs)

    def get_absolute_url(self) -> str:
        return reverse("lot", args=[self.pk])

    @property
    def is_open(self) -> bool:
        """Whether bids are taken now: not closed by hand, and not past its time."""
        return self.status == self.Status.OPEN and timezone.now() < self.closes_at

    @property
    def lowest_bid(self) -> Decimal:
        """The least amount that would lead."""
        if self.bid_count == 0:
            return self.starting_price
        return self.current_price + CENT

    @property
    def next_bid(self) -> Decimal:
        """A sensible amount to offer: one customary step above the current price."""
        if self.bid_count == 0:
            return self.starting_price
        if self.current_price < 500:
            return self.current_price + 5
        if self.current_price < 5000:
            return self.current_price + 20
        return self.current_price + 100

    @property
    def recent_bids(self) -> models.QuerySet["Bid"]:
        """The last five bids, newest first."""
        return self.bids.order_by("-placed_at", "-id")[:5]


@realtime(
    serializer_class="auction.serializers.OwnBidSerializer",
    scopes={"owner": "user_id"},
)
class Bid(models.Model):
    """An offer that led when it was placed. See auction.bidding.place_bid().

    Who is logged in follows the bids of its own, and nobody else's.
    """

    lot = models.ForeignKey(Lot, on_delete=models.CASCADE, related_name="bids")
    bidder = models.CharField(max_length=40)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="bids",
    )
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    placed_at = models.DateTimeField(auto_now_add=True)

    objects = RealtimeManager()

    def __str__(self) -> str:
        return f"{self.bidder}: {self.amount}"
