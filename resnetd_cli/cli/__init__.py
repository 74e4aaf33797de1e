"""The command line: parse, call the library, hand the results to a sink."""
