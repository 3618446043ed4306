"""Reading, writing, checking and comparing structures."""
