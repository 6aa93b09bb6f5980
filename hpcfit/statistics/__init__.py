"""What is known of errors: folds that are held out, and resampled blocks."""
