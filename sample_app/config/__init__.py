"""The project around the auction: settings and entry points."""

# Signs what the proxy passes on. Public, so good for a demo only.
DEMO_KEY = "base64:ZGVtby1rZXktb2YtdGhlLWF1Y3Rpb24tbm90LWEtc2VjcmV0"
