"""Networks: pure modules from pixels in [0, 1], with normalization inside. They know torch and torchvision only."""
