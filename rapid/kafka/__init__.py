"""Topics of a Kafka broker: what they hold is handed to whoever wants it, and committed once it is safe there."""
