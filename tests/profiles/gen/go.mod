module example.com/shop

go 1.24

require example.org/metrics v1.4.2
