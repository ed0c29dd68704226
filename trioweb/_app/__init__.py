"""The roof: who answers a request, what becomes of its failure, and the door for ASGI."""
