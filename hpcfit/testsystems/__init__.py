"""Small systems with known answers, shared by the tests, the examples and the demo."""
