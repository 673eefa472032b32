"""The wire: structs and codecs of requests, responses and events. Imports no other folder; import its modules."""
