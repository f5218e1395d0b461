"""The HTTP face of a controller: what it can be asked (operations, requests) and the FastAPI app over it."""
