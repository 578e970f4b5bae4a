"""Relational engines behind one protocol: `protocol.open_engine` opens DuckDB (`duckdb`) or Spark (`spark`, `session`)."""
