"""Full-catalogue ranking metrics per user, intervals and paired differences."""
