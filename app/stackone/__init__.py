"""The only place that knows StackOne's wire format."""
