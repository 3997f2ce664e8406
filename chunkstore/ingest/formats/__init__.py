"""The formats that are read: a module each, imported when a file of its format comes."""
