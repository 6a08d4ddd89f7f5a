from django.db import migrations, models

import django_grip.contrib.eventlog.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Head",
            fields=[
                (
                    "channel",
                    django_grip.contrib.eventlog.models.ChannelField(
                        max_length=191, primary_key=True, serialize=False
                    ),
                ),
                ("seq", models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Held",
            fields=[
                (
                    "channel",
                    django_grip.contrib.eventlog.models.ChannelField(
                        max_length=191, primary_key=True, serialize=False
                    ),
                ),
                ("close_at", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Outbox",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("transaction", models.BigIntegerField()),
                ("body", models.TextField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "waiting change",
                "verbose_name_plural": "waiting changes",
            },
        ),
        migrations.CreateModel(
            name="Sequence",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("epoch", models.CharField(max_length=16)),
                ("last_seq", models.BigIntegerField(default=0)),
                ("floor", models.BigIntegerField(default=0)),
                ("lease_owner", models.CharField(default="", max_length=64)),
                ("lease_until", models.DateTimeField(null=True)),
                ("seen_at", models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="SetAside",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("reason", models.TextField()),
                ("body", models.TextField(default="")),
                ("transaction", models.BigIntegerField(null=True)),
                ("seq", models.BigIntegerField(null=True)),
                ("server", models.CharField(default="", max_length=191)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "change set aside",
                "verbose_name_plural": "changes set aside",
            },
        ),
        migrations.CreateModel(
            name="Target",
            fields=[
                (
                    "server",
                    models.CharField(max_length=191, primary_key=True, serialize=False),
                ),
                ("published", models.BigIntegerField(default=0)),
                ("failing_since", models.DateTimeField(null=True)),
                ("last_error", models.TextField(default="")),
            ],
            options={
                "verbose_name": "proxy",
                "verbose_name_plural": "proxies",
            },
        ),
        migrations.CreateModel(
            name="LoggedEvent",
            fields=[
                ("seq", models.BigIntegerField(primary_key=True, serialize=False)),
                (
                    "channel",
                    django_grip.contrib.eventlog.models.ChannelField(max_length=191),
                ),
                ("prev", models.BigIntegerField()),
                ("op", models.CharField(max_length=100)),
                ("origin", models.TextField(null=True)),
                ("text", models.TextField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "event",
                "indexes": [
                    models.Index(fields=["channel", "seq"], name="grip_event_channel")
                ],
            },
        ),
    ]
