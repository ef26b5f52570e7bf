package nbd.conformance;
