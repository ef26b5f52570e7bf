package nbd.server;

import java.util.function.BooleanSupplier;

/**
 * What a server's connections know of the processors that they share.
 *
 * @param crowded whether others may be waiting for a carrier
 * @param sharing with the machine's other threads
 */
record Processors(BooleanSupplier crowded, ProcessorSharing sharing) {}
