package nbd.server;

import java.util.List;
import java.util.OptionalLong;

/**
 * An export, as it is at one moment.
 *
 * @param names all of its names; empty if the storage names its exports itself
 * @param backend the storage's name for messages
 * @param size in bytes; empty until a client has opened it, and if there are several sizes
 * @param connections the clients that have opened it
 * @param readOnly whether writing is refused
 * @param mode the multi-conn mode, for people
 * @param serving whether new clients may open it
 */
public record ExportState(
    List<String> names,
    String backend,
    OptionalLong size,
    int connections,
    boolean readOnly,
    String mode,
    boolean serving) {}
