"""What runs on a gateway: rounds, averaging, the durable truth. numpy, never torch."""
