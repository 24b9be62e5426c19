VIEWS = ("auto", "exact")  # how a photograph is looked at: see `Restorer`
