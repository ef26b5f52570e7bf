package nbd.cli;

import java.util.List;

/**
 * An export that the user defines with {@code --export}, in the file of {@code --config}, or by the
 * control socket.
 *
 * @param origin begins the message of an error: the option and the name, or the file and the line
 * @param name the one name
 * @param backend the argument that names the storage
 * @param options its own, and those of serve that it does not have
 * @param words the definition as the user wrote it; equal for equal exports
 */
record ExportDefinition(
    String origin, String name, String backend, ExportOptions options, List<String> words) {}
