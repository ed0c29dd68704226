"""What tests share: servers, clients, apps and processes to test with; it has no tests."""
