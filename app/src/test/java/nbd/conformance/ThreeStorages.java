package nbd.conformance;

import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Cases that the server answers without the storage, which it asks only for an export's facts. They
 * run on memory, which offers everything; on a directory, which has export names of its own; and on
 * another server, from which come other block sizes and few flags.
 */
@ParameterizedClass(name = "{0}")
@EnumSource(names = {"MEMORY", "DIRECTORY", "UPSTREAM_OF_BLOCKS"})
abstract class ThreeStorages extends StorageCases {}
