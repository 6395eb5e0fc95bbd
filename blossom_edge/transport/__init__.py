"""How bytes travel: the `Link` seam, topics, MQTT and loopback. Knows nothing of what the bytes mean."""
