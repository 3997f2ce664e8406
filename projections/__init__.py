"""What is derived from the log and can be thrown away: active versions, search, collection, verification."""
