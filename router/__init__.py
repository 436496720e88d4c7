"""The service: request → features → decision → chain → reply → outcome."""
