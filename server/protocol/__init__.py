"""The wire: structs and codecs of requests, responses and events. Import its modules; they import no other folder."""
