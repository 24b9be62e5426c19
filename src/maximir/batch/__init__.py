"""Plan, restore and resume many images, on disks and in stores."""
