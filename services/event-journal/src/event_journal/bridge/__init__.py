"""The bridge to NATS JetStream: a process of its own, which reads the journal as any reader does and publishes every entry once, in order."""
