package nbd.cli;

import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;
import nbd.filter.ErrorRate;
import nbd.protocol.NbdError;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** A rate from 0 to 1, and perhaps the name of an error behind a colon. */
final class ErrorRateConverter implements ITypeConverter<ErrorRate> {
  @Override
  public ErrorRate convert(String text) {
    int colon = text.indexOf(':');
    String rate = colon < 0 ? text : text.substring(0, colon);
    NbdError error = colon < 0 ? NbdError.EIO : error(text.substring(colon + 1));
    try {
      return new ErrorRate(Double.parseDouble(rate), error);
    } catch (IllegalArgumentException wrong) {
      throw new TypeConversionException("\"" + rate + "\" is not a rate from 0 to 1");
    }
  }

  private static NbdError error(String name) {
    for (NbdError error : NbdError.values()) {
      if (error != NbdError.NONE && error.name().equals(name.toUpperCase(Locale.ROOT))) {
        return error;
      }
    }
    throw new TypeConversionException(
        "\"%s\" is none of %s"
            .formatted(
                name,
                Arrays.stream(NbdError.values())
                    .filter(error -> error != NbdError.NONE)
                    .map(NbdError::name)
                    .collect(Collectors.joining(", "))));
  }
}
