"""Files in: found, read, cut into chunks, appended as versions."""
