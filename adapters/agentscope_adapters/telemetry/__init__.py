"""Telemetry: traces by OpenTelemetry, metrics for Prometheus. Each module is imported when the configuration asks."""
