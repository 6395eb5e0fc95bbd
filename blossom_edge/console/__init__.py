"""How both programs talk to a person: commands, errors, tables, JSON, logs. Never imports numpy, pydantic or torch."""
