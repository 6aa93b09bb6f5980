"""What is fitted: one problem a file behind one contract."""
