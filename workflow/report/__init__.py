"""What the product `report` is made with: readers of its inputs, geometry of its charts, its template."""
